"""Small made-up files, written exactly as publishers write theirs."""

from __future__ import annotations

import gzip
import tarfile
import zipfile
from pathlib import Path
from typing import Literal


def write(folder: Path, files: dict[str, str], encoding: str = "utf-8") -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content.encode(encoding)
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return folder


def zipped(folder: Path, flat: bool = False) -> Path:
    """The folder as a zip that holds it, as most publishers make them, or only its files, as others do."""
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder if flat else folder.parent))
    return path


def yelp_zip(folder: Path, mode: Literal["w", "w:gz"] = "w:gz") -> Path:
    """`Yelp-JSON.zip` as Yelp offers it; beside it `Yelp JSON` is what unzipping it gives."""
    unzipped = write(
        folder,
        {
            "Yelp JSON/Yelp Dataset Documentation & ToS copy.pdf": "terms",
            "Yelp JSON/yelp_dataset.tar": "",
            "__MACOSX/Yelp JSON/._yelp_dataset.tar": "Mac OS X",
        },
    )
    content = write(folder / "content", {"Dataset_User_Agreement.pdf": "terms", **YELP})
    with tarfile.open(unzipped / "Yelp JSON" / "yelp_dataset.tar", mode) as archive:
        for file in sorted(content.iterdir()):
            archive.add(file, file.name)
    path = folder / "Yelp-JSON.zip"
    with zipfile.ZipFile(path, "w") as packed:
        for place in ("Yelp JSON", "__MACOSX"):
            for file in sorted((folder / place).rglob("*")):
                packed.write(file, file.relative_to(folder))
    return path


# https://files.grouplens.org/datasets/movielens/ml-100k-README.txt
ML_100K = {
    "u.data": "196\t242\t3\t881250949\n186\t302\t3\t891717742\n196\t302\t4\t881250948\n",
    "u.item": (
        "242|Les Misérables (1995)|01-Jan-1995||http://us.imdb.com/M/title-exact?x|0|0|0|1|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0\n"
        '302|L.A. "C" (1997)||||1|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0\n'
    ),
    "u.genre": "unknown|0\nAction|1\n",
}
# https://files.grouplens.org/datasets/movielens/ml-1m-README.txt
ML_1M = {
    "ratings.dat": "196::242::3::881250949\n186::302::3::891717742\n196::302::4::881250948\n",
    "movies.dat": '242::Les Misérables (1995)::Animation|Children\'s|Comedy\n302::L.A. "C" (1997)::\n',
    "users.dat": "196::F::1::10::48067\n",
}
# https://files.grouplens.org/datasets/movielens/ml-10m-README.html: half stars, and UTF-8 where 1M is Latin-1.
ML_10M = {
    "ratings.dat": "196::242::3::881250949\n186::302::3.5::891717742\n196::302::4::881250948\n",
    "movies.dat": '242::Misérables, Les (1995)::Drama|War\n302::L.A. "C" Ō (1997)::(no genres listed)\n',
    "tags.dat": "196::242::Hugo::1215184630\n",
}
# The same files in 20M, 25M, 32M and latest-small:
# https://files.grouplens.org/datasets/movielens/ml-20m-README.html
# https://files.grouplens.org/datasets/movielens/ml-25m-README.html
# https://files.grouplens.org/datasets/movielens/ml-32m-README.html
# https://files.grouplens.org/datasets/movielens/ml-latest-small-README.html
ML_25M = {
    "ratings.csv": (
        "userId,movieId,rating,timestamp\n196,242,3.0,881250949\n186,302,3.5,891717742\n196,302,4.0,881250948\n"
    ),
    "movies.csv": (
        "movieId,title,genres\n242,Les Misérables (1995),Animation|Children's|Comedy\n"
        '302,"L.A. ""C"" (1997)",(no genres listed)\n'
    ),
}
# https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html
REVIEWS_2014 = (
    '{"reviewerID": "A2SU", "asin": "B0001", "reviewerName": "J. \\"x\\"", "helpful": [2, 3], "reviewText": "I do.", '
    '"overall": 5.0, "summary": "Heavenly", "unixReviewTime": 1252800000, "reviewTime": "09 13, 2009"}\n'
    '{"reviewerID": "A2SU", "asin": "B0002", "helpful": [0, 0], "reviewText": "", "overall": 2.0, '
    '"summary": "", "unixReviewTime": 1252700000, "reviewTime": "09 12, 2009"}\n'
)
METADATA_2014 = (
    "{'asin': 'B0002', 'imUrl': 'http://x/I/a.jpg', 'categories': [['Toys & Games', 'Puzzles'], ['Toys & Games']]}\n"
    "{'asin': 'B0001', 'title': \"Girl's Tutu\\d\", 'price': 3.17, 'related': {'also_bought': ['B00J']}, "
    "'salesRank': {'Toys & Games': 211836}, 'brand': 'Coxlures', 'description': 'A \"tutu\".', "
    "'categories': [['Sports', 'Other Sports', 'Dance']]}\n"
)
# https://cseweb.ucsd.edu/~jmcauley/datasets/amazon_v2/
REVIEWS_2018 = (
    '{"overall": 5.0, "vote": "2", "verified": true, "reviewTime": "09 13, 2009", "reviewerID": "A2SU", '
    '"asin": "B0001", "style": {"Format:": " Hardcover"}, "reviewerName": "Abbey", "reviewText": "Great.", '
    '"summary": "Sturdy", "unixReviewTime": 1252800000, "image": ["https://x/I/7.jpg"]}\n'
    '{"overall": 2.0, "verified": true, "reviewTime": "09 12, 2009", "reviewerID": "A2SU", "asin": "B0002", '
    '"unixReviewTime": 1252700000}\n'
)
METADATA_2018 = (
    '{"category": ["Toys & Games", "Puzzles"], "tech1": "", "description": [], "fit": "", "title": "Puzzle", '
    '"also_buy": [], "brand": "", "feature": [], "rank": [], "main_cat": "Toys", "price": "", "asin": "B0002"}\n'
    '{"category": ["Sports", "Other Sports", "Dance"], "description": ["A \\"tutu\\".", "Pink"], '
    '"title": "Girl&#39;s Tutu", "brand": "Coxlures", "feature": ["Botiquecutie", "One size"], '
    '"rank": "1,234 in Toys", "price": "$3.17", "asin": "B0001", "similar_item": ""}\n'
)
# https://amazon-reviews-2023.github.io
REVIEWS_2023 = (
    '{"rating": 5.0, "title": "Such", "text": "This.", "images": [], "asin": "B0009", "parent_asin": "B0001", '
    '"user_id": "A2SU", "timestamp": 1252800000000, "helpful_vote": 0, "verified_purchase": true}\n'
    '{"rating": 2.0, "title": "", "text": "", "images": [{"small_image_url": "x"}], "asin": "B0002", '
    '"parent_asin": "B0002", "user_id": "A2SU", "timestamp": 1252700000000, "verified_purchase": false}\n'
)
METADATA_2023 = (
    '{"main_category": "Toys", "title": "Puzzle", "average_rating": 4.8, "rating_number": 10, "features": [], '
    '"description": [], "price": null, "images": [{"thumb": "https://x", "hi_res": null}], "videos": [], '
    '"store": null, "categories": [], "details": {"UPC": "6171"}, "parent_asin": "B0002", "bought_together": null}\n'
    '{"main_category": "Sports", "title": "Girl\'s Tutu", "average_rating": 4.5, "features": ["One size"], '
    '"description": ["A \\"tutu\\".", "Pink"], "price": 3.17, "store": "Coxlures", '
    '"categories": ["Sports", "Dance"], "details": {"Package": "1"}, "parent_asin": "B0001"}\n'
)
# https://www.yelp.com/dataset/documentation/main
YELP = {
    "yelp_academic_dataset_review.json": (
        '{"review_id":"KU_O","user_id":"mh_-","business_id":"XQfw","stars":3.0,"useful":0,"funny":0,"cool":0,'
        '"text":"If you","date":"2018-07-07 22:09:11"}\n'
        '{"review_id":"BiTu","user_id":"mh_-","business_id":"7ATY","stars":5.0,"useful":1,"funny":0,"cool":1,'
        '"text":"I\'ve","date":"2012-01-03 15:28:18"}\n'
    ),
    "yelp_academic_dataset_business.json": (
        '{"business_id":"XQfw","name":"Turning Point","address":"1460 Rd","city":"North Wales","state":"PA",'
        '"postal_code":"19454","latitude":40.2,"longitude":-75.1,"stars":3.0,"review_count":169,"is_open":1,'
        '"attributes":{"NoiseLevel":"u\'average\'"},"categories":"Restaurants, Breakfast & Brunch","hours":null}\n'
        '{"business_id":"7ATY","name":"Body Cycle","address":"","city":"Philadelphia","state":"PA","stars":5.0,'
        '"review_count":144,"is_open":0,"attributes":null,"categories":null,"hours":{"Monday":"6:30-20:30"}}\n'
    ),
}
# https://cseweb.ucsd.edu/~jmcauley/datasets.html#steam_data
STEAM_REVIEWS = (
    "{u'username': u'Chaos Syren', u'hours': 0.1, u'products': 41, u'product_id': u'725280', u'page_order': 0, "
    "u'date': u'2017-12-17', u'text': u'This would not be acceptable.', u'early_access': False, u'page': 1}\n"
    "{u'username': u\"H'\\xe9\", u'hours': 51.1, u'products': 769, u'product_id': u'328100', u'page_order': 0, "
    "u'date': u'2017-12-27', u'text': u'looks like', u'compensation': u'Product received for free', u'page': 1}\n"
)
STEAM_GAMES = (
    "{u'publisher': u'Kotoshiro', u'genres': [u'Action', u'Indie'], u'app_name': u'Lost', u'title': u'Lost Kitty', "
    "u'url': u'http://x', u'release_date': u'2018-01-04', u'tags': [u'Strategy'], u'discount_price': 4.49, "
    "u'specs': [u'Single-player'], u'price': 4.99, u'early_access': False, u'id': u'725280', u'developer': u'K'}\n"
    "{u'app_name': u'Log Challenge', u'price': u'Free to Play', u'early_access': False, u'id': u'328100'}\n"
    "{u'app_name': u'nameless', u'early_access': False}\n"
)
# https://github.com/msnews/msnews.github.io/blob/master/assets/doc/introduction.md
NEWS = (
    'N1\tlifestyle\troyals\tThe "Brands"\tShop the notebooks\thttps://x/N1.html\t[{"Label": "Q"}]\t[]\n'
    "N2\thealth\tmedical\tPTSD\t\thttps://x/N2.html\t[]\t[]\n"
    "N3\tsports\tnfl\tScores\tAll of them\thttps://x/N3.html\t[]\t[]\n"
)
MIND = {
    "MINDsmall_train/behaviors.tsv": (
        "2\tU1\t11/12/2019 1:05:58 PM\tN1 N2\tN1-0 N3-1 N2-1\n"
        "1\tU1\t11/12/2019 11:05:58 AM\tN1 N2\tN1-1 N3-0\n"
        "3\tU2\t11/12/2019 6:11:30 PM\t\tN2-0 N3-1\n"
    ),
    "MINDsmall_train/news.tsv": NEWS,
    "MINDsmall_dev/behaviors.tsv": "1\tU1\t11/15/2019 8:55:22 AM\tN1 N2\tN1-0 N4-1\n",
    "MINDsmall_dev/news.tsv": NEWS + "N4\tnews\tworld\tNew\t\thttps://x/N4.html\t[]\t[]\n",
}
# https://github.com/zygmuntz/goodbooks-10k
GOODBOOKS = {
    "ratings.csv": "user_id,book_id,rating\n1,2,5\n2,1,4\n1,1,3\n",
    "books.csv": (
        "book_id,goodreads_book_id,best_book_id,work_id,books_count,isbn,isbn13,authors,original_publication_year,"
        "original_title,title,language_code,average_rating,ratings_count,work_ratings_count,work_text_reviews_count,"
        "ratings_1,ratings_2,ratings_3,ratings_4,ratings_5,image_url,small_image_url\n"
        '1,27,27,79,272,439023483,9.78e+12,S. M,2008.0,The Games,"The Games (Games, #1)",eng,4.34,4,5,6,1,2,3,4,5,u,\n'
        '2,3,3,46,491,043955493X,9.78e+12,"J. Up, M. G",1997.0,Stone,"Stone (Stones, #1)",,4.44,4,5,6,1,2,3,4,5,u,\n'
    ),
    "samples/ratings.csv": "user_id,book_id,rating\n9,9,9\n",
}
# https://github.com/RUCAIBox/UniSRec/tree/master/dataset: a user's training lines are the longest prefix first.
HEADER = "user_id:token\titem_id_list:token_seq\titem_id:token\n"
UNISREC = {
    "Toys.train.inter": HEADER + "0\t0 1 0\t2\n0\t0 1\t0\n0\t0\t1\n",
    "Toys.valid.inter": HEADER + "0\t0 1 0 2\t1\n1\t2\t0\n",
    "Toys.test.inter": HEADER + "0\t0 1 0 2 1\t0\n1\t2 0\t1\n",
    "Toys.text": 'item_id:token\ttext:token_seq\nB0\tTutu. Sports. Cox. \nB1\tA 3" puzzle. \nB2\tBall. \n',
    "Toys.item2index": "B0\t0\nB1\t1\nB2\t2\n",
    "Toys.user2index": "AX\t0\nAY\t1\n",
    "Toys.feat1CLS": "not text",
}
# https://github.com/AaronHeee/RecFormer, finetune_data
RECFORMER = {
    "train.json": {"0": [0, 1, 0], "1": [2]},
    "val.json": {"0": [2], "1": [0]},
    "test.json": {"0": [1], "1": [1]},
    "umap.json": {"AX": 0, "AY": 1},
    "smap.json": {"B0": 0, "B1": 1, "B2": 2},
    "meta_data.json": {
        "B1": {"title": "Puzzle", "brand": "", "category": "Toys Puzzles"},
        "B0": {"title": "Tutu", "brand": "Cox", "category": "Sports Dance"},
        "B2": {"title": "Ball", "brand": None, "category": "Toys"},
        "B9": {"title": "Unseen", "brand": "Cox", "category": "Toys"},
    },
}
